# Made by "npm run manifests"; changes belong in scripts/manifests. Its directory is the context:
#   docker build -f bundle.Dockerfile .
FROM scratch

LABEL operators.operatorframework.io.bundle.mediatype.v1=registry+v1
LABEL operators.operatorframework.io.bundle.manifests.v1=manifests/
LABEL operators.operatorframework.io.bundle.metadata.v1=metadata/
LABEL operators.operatorframework.io.bundle.package.v1=secrets-store-csi-driver-operator
LABEL operators.operatorframework.io.bundle.channels.v1=stable
LABEL operators.operatorframework.io.bundle.channel.default.v1=stable
LABEL operators.operatorframework.io.test.mediatype.v1=scorecard+v1
LABEL operators.operatorframework.io.test.config.v1=tests/scorecard/

COPY manifests/*.yaml /manifests/
COPY metadata/annotations.yaml /metadata/
COPY tests/scorecard /tests/scorecard/
