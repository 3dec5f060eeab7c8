# Three images from one checkout: docker build --target server (or client, loadtest) .
# Any image with Python 3.11 or newer, with venv and pip, can be the base.
ARG PYTHON_IMAGE=python:3.13.7-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH
# A fixed number, so that mounted files can be given to it.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin echoswarm


# What the server and the client need, without their sources: these change more often.
FROM base AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python3 -m venv /opt/venv
COPY pyproject.toml constraints.txt ./
RUN mkdir -p core/echo_core server/echo_server client/echo_client loadtest/echo_load \
    && touch README.md LICENSE \
    && pip install --constraint constraints.txt .

FROM dependencies AS installed
COPY . .
RUN pip install --constraint constraints.txt --no-deps --force-reinstall .


FROM base AS server
COPY --from=installed /opt/venv /opt/venv
# Defaults of the image; options and other values override them.
ENV ECHO_SERVER_HOST=0.0.0.0 ECHO_SERVER_ADMIN=0.0.0.0:9607
EXPOSE 50007 9607
USER 10001:10001
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9607/readyz', timeout=2)"]
ENTRYPOINT ["echo-server"]


FROM base AS client
COPY --from=installed /opt/venv /opt/venv
USER 10001:10001
ENTRYPOINT ["echo-client"]


FROM dependencies AS dependencies-loadtest
RUN pip install --constraint constraints.txt '.[all]'

FROM dependencies-loadtest AS installed-loadtest
COPY . .
RUN pip install --constraint constraints.txt --no-deps --force-reinstall .

FROM base AS loadtest
COPY --from=installed-loadtest /opt/venv /opt/venv
# 8089: locust's web page, 5557: its workers, 9608: --prometheus, as docker-compose.yml has them.
EXPOSE 8089 5557 9608
USER 10001:10001
ENTRYPOINT ["echo-load"]
