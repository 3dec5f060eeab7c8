# Three images from one checkout: docker build --target server (or client, loadtest) .
# Any image with Python 3.11 or newer, with venv and pip, can be the base, also by its digest:
# --build-arg PYTHON_IMAGE=python:3.13.7-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.13.7-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/venv/bin:$PATH
# A fixed number, so that mounted files can be given to it.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin echoswarm
LABEL org.opencontainers.image.version=0.1.0 org.opencontainers.image.licenses=MIT


# What the server and the client need, without their sources: these change more often.
FROM base AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The build hook writes manual pages, which nobody reads in an image.
ENV HATCH_BUILD_NO_HOOKS=true
WORKDIR /source
RUN python3 -m venv /opt/venv
COPY pyproject.toml constraints.txt ./
RUN mkdir -p core/echo_core server/echo_server client/echo_client loadtest/echo_load \
    && touch README.md LICENSE \
    && pip install --constraint constraints.txt .

FROM dependencies AS installed
COPY . .
# What installs is of no use in an image.
RUN pip install --constraint constraints.txt --no-deps --force-reinstall . \
    && pip uninstall --yes setuptools pip


FROM base AS server
COPY --from=installed /opt/venv /opt/venv
COPY server/container/readiness.py /opt/readiness.py
LABEL org.opencontainers.image.title=echoswarm-server \
    org.opencontainers.image.description="An echo server for TCP, TLS, UDP and unix sockets"
# Defaults of the image; options and other values override them. The drain ends within the ten
# seconds that `docker stop` waits before it kills.
ENV ECHO_SERVER_HOST=0.0.0.0 ECHO_SERVER_ADMIN=0.0.0.0:9607 ECHO_SERVER_DRAIN_TIMEOUT=5s
EXPOSE 50007/tcp 50007/udp 9607/tcp
USER 10001:10001
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python3", "-IS", "/opt/readiness.py"]
ENTRYPOINT ["echo-server"]


FROM base AS client
COPY --from=installed /opt/venv /opt/venv
LABEL org.opencontainers.image.title=echoswarm-client \
    org.opencontainers.image.description="A prompt and a pipe for echo services"
USER 10001:10001
ENTRYPOINT ["echo-client"]


FROM dependencies AS dependencies-loadtest
RUN pip install --constraint constraints.txt '.[all]'

FROM dependencies-loadtest AS installed-loadtest
COPY . .
RUN pip install --constraint constraints.txt --no-deps --force-reinstall . \
    && pip uninstall --yes setuptools pip

FROM base AS loadtest
COPY --from=installed-loadtest /opt/venv /opt/venv
LABEL org.opencontainers.image.title=echoswarm-loadtest \
    org.opencontainers.image.description="A load tester for echo services that checks every byte"
# 8089: locust's web page, 5557: its workers, 9608: --prometheus, as docker-compose.yml has them.
EXPOSE 8089 5557 9608
USER 10001:10001
ENTRYPOINT ["echo-load"]
