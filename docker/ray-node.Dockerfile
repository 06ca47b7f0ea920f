# A node of a Ray cluster with the worker in it, built from the project's top folder:
#   docker build -f docker/ray-node.Dockerfile -t atlas-symmetry-ray-node .
# RAY: the image of Ray; the version of your cluster. For GPUs: rayproject/ray:2.60.0-py311-gpu.
ARG RAY=rayproject/ray:2.60.0-py311
FROM ${RAY}

# Another PyTorch than the pinned one, as a requirement, e.g. torch==2.9.1.
ARG TORCH=""
# As pip reads them.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL

USER root
COPY py-worker/requirements.txt py-worker/requirements-files.txt /opt/atlas/py-worker/
# The worker has an environment of its own: Ray only starts and stops it.
RUN cd /opt/atlas/py-worker \
 && python3 -m venv .venv \
 && if [ -n "$TORCH" ]; then sed -i "s|^torch\b.*|$TORCH|" requirements.txt; fi \
 && .venv/bin/python -m pip install --no-cache-dir --no-input --disable-pip-version-check \
      --progress-bar off -r requirements.txt -r requirements-files.txt

COPY proto /opt/atlas/proto
COPY py-worker/atlas_worker /opt/atlas/py-worker/atlas_worker
# The stubs, made as src/setup/python.mjs makes them.
RUN cd /opt/atlas/proto \
 && gen=/opt/atlas/py-worker/atlas_worker/gen \
 && mkdir -p "$gen" \
 && /opt/atlas/py-worker/.venv/bin/python -m grpc_tools.protoc -I. \
      --python_out="$gen" --grpc_python_out="$gen" $(find atlas -name '*.proto') \
 && find "$gen" -name '*.py' -exec sed -i 's/^from atlas\./from atlas_worker.gen.atlas./' {} + \
 && find "$gen" -type d -exec touch {}/__init__.py \; \
 && chmod -R a+rX /opt/atlas
USER ray
