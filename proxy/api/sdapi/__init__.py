"""The part of Automatic1111's API that its clients use to make pictures.

https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
"""
