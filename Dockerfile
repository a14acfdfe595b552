# janitor in a container, for kubernetes/. Nothing is fetched in here: `make image-context` has put into dist/ the wheels
# and Debian's packages of Python, so the same files make the same image, with or without a network.
#
#   make image-context && docker build --build-arg VERSION=0.1.0 --tag registry.example.com/janitor:0.1.0 .
#
# The image is for the architecture on which the context was made. VERSION, REVISION (the commit) and SOURCE (where your
# sources are) are only said in its labels.
ARG BASE=docker.io/library/debian:12-slim

# Python from Debian: glibc and OpenSSL are updated with the rest of the image.
FROM ${BASE} AS python
RUN --mount=type=bind,source=dist/packages,target=/packages \
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends /packages/*.deb >/dev/null \
    && rm -rf /var/log/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/lib/dpkg/*-old /usr/share/doc/* /usr/share/man/* /usr/share/locale/*

# pip is here only, and not in what runs.
FROM python AS wheels
RUN --mount=type=bind,source=dist/wheels,target=/wheels \
    PYTHONPATH=$(echo /wheels/pip-*.whl) python3 -m pip install --no-index --find-links=/wheels --no-cache-dir \
        --disable-pip-version-check --root-user-action=ignore --no-warn-script-location --prefix=/opt/janitor cni-janitor \
    && python3 -m compileall -q /opt/janitor

FROM python
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="janitor" \
      org.opencontainers.image.description="Frees leaked CNI pod addresses, and says why a Kubernetes node's network is broken" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="docker.io/library/debian:12-slim"
COPY --from=wheels /opt/janitor /opt/janitor
# Nothing is written: the root file system is read-only, and bytecode has been compiled above.
ENV PATH=/opt/janitor/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/janitor/lib/python3.11/site-packages \
    PYTHONDONTWRITEBYTECODE=1
# Root, without most of its rights: whose files and processes it looks at are root's. The DaemonSet says which it keeps.
USER 0:0
ENTRYPOINT ["janitor"]
CMD ["run"]
