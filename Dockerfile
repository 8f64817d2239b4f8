# The images of the node driver and of the operator:
#   docker build --target driver   -t driver   .
#   docker build --target operator -t operator .
# For another platform: --platform linux/arm64; nothing is emulated, only files are put together. buildah takes the same
# file. Releases give the bases by digest, with --build-arg.
ARG BUILD_BASE=docker.io/library/node:26-slim
# The same for the target's platform, where a base is of one platform only.
ARG LIBRARIES_BASE=${BUILD_BASE}
ARG RUNTIME_BASE=gcr.io/distroless/cc-debian12:latest

# Its own Node and npm only start the build: the Node that bundles, and that the images run, is the one of
# package-lock.json, which is the one that the tests ran on.
FROM --platform=$BUILDPLATFORM ${BUILD_BASE} AS packages
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN --mount=type=cache,target=/var/cache/npm npm ci --cache=/var/cache/npm
COPY scripts/image-files.mjs scripts/
ARG TARGETARCH
RUN node_modules/.bin/node scripts/image-files.mjs packages /image "${TARGETARCH:-amd64}"

FROM packages AS build
COPY . .
ARG BUILD_VERSION=local-dev
ARG BUILD_VCS=""
ARG BUILD_TIME=""
RUN node_modules/.bin/node scripts/bundle.mjs && node_modules/.bin/node scripts/image-files.mjs programs /programs

# A library that Node needs and the runtime's base does not have, of the target's platform.
FROM ${LIBRARIES_BASE} AS libraries

# What both have, and releases have in common comes first. No shell, no package manager.
FROM ${RUNTIME_BASE} AS runtime
# One malloc arena instead of one per thread.
ENV MALLOC_ARENA_MAX=1
COPY --from=libraries /usr/lib/*-linux-gnu/libatomic.so.1 /usr/lib/
COPY --from=packages /image/node /usr/bin/node
COPY --from=packages /image/node_modules /app/node_modules
ARG BUILD_VERSION=local-dev
ARG BUILD_VCS=""
ARG BUILD_TIME=""
LABEL org.opencontainers.image.source="https://github.com/secrets-store-csi/secrets-store-csi" \
      org.opencontainers.image.version="${BUILD_VERSION}" \
      org.opencontainers.image.revision="${BUILD_VCS}" \
      org.opencontainers.image.created="${BUILD_TIME}"
WORKDIR /

FROM runtime AS operator
LABEL org.opencontainers.image.title="secrets-store-csi-driver-operator" \
      org.opencontainers.image.description="Deploys and updates the Secrets Store CSI driver"
COPY --from=build /programs/operator /app
# A number, so that runAsNonRoot can be checked.
USER 65532:65532
ENTRYPOINT ["/usr/bin/node", "--max-semi-space-size=1", "--max-old-space-size=64", "--no-opt", "--no-maglev", "--v8-pool-size=0", "--flush-baseline-code", "--expose-gc", "--bytecode-old-age=1", "/app/operator.cjs"]

FROM runtime AS driver
LABEL org.opencontainers.image.title="secrets-store-csi-driver" \
      org.opencontainers.image.description="CSI node driver that mounts secrets of external stores into pods"
COPY --from=build /programs/driver /app
# It mounts into the directories of the kubelet.
USER 0:0
ENTRYPOINT ["/usr/bin/node", "--max-semi-space-size=1", "--max-old-space-size=64", "--no-opt", "--no-maglev", "--v8-pool-size=0", "--flush-baseline-code", "--expose-gc", "--bytecode-old-age=1", "/app/driver.cjs"]
