FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/images-proxy
WORKDIR /build
# First what seldom changes: locked with hashes, what PostgreSQL and S3 need included.
COPY requirements.lock ./
RUN /opt/images-proxy/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN /opt/images-proxy/bin/pip install --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home images-proxy
COPY --from=build /opt/images-proxy /opt/images-proxy
ENV PATH=/opt/images-proxy/bin:$PATH
# By number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 10001
WORKDIR /home/images-proxy
# Pictures, what survives the process, and what has been learned about each model's pace.
VOLUME /home/images-proxy
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
# Needs IMAGES_PROXY_KEYS: a service that others reach must ask for a key. To be stopped with more patience than
# timeouts.drain: docker stop --time 45.
CMD ["images-proxy", "serve", "--host", "0.0.0.0"]
