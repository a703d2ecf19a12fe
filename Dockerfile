FROM python:3.13-slim
WORKDIR /app
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN pip install --no-cache-dir --require-hashes -r requirements.lock \
    && pip install --no-cache-dir --no-deps . \
    && useradd --create-home images-proxy
USER images-proxy
EXPOSE 8080
# Needs IMAGES_PROXY_KEYS: a service that others reach must ask for a key.
CMD ["images-proxy", "serve", "--host", "0.0.0.0"]
