#!/usr/bin/env bash
# One worker whose trainings are shared by several machines. Each machine has RANKS processes, one
# for each GPU. Run the script on every machine, all with the same HEAD, from a folder where Atlas
# is set up (npm run setup).
#
# On the first machine, whose address HEAD has:
#   NODES=2 NODE=0 HEAD=10.0.0.1:29500 RANKS=4 docker/torchrun.sh --listen 127.0.0.1:50051
# On the other machine:
#   NODES=2 NODE=1 HEAD=10.0.0.1:29500 RANKS=4 docker/torchrun.sh
# On the first machine, or through an ssh tunnel:
#   atlas … --worker grpc://127.0.0.1:50051 --ranks 8
#
# Slurm sets all but RANKS:
#   RANKS=4 srun --nodes=2 --ntasks-per-node=1 --gpus-per-node=4 \
#     docker/torchrun.sh --listen 127.0.0.1:50051
#
# In a Ray placement group (strategy STRICT_SPREAD), each bundle's task runs the script. NODE is the
# bundle's number, and HEAD has the address of the first bundle. Arguments are those of
# `python -m atlas_worker serve`. The ranks talk without encryption: use a network that you trust.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
nodes=${NODES:-${SLURM_NNODES:-1}}
node=${NODE:-${SLURM_NODEID:-0}}
if [ -z "${HEAD:-}" ] && [ -n "${SLURM_JOB_NODELIST:-}" ]; then
  # Jobs on one machine get ports of their own.
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  HEAD=$first:$((20000 + SLURM_JOB_ID % 20000))
fi
head=${HEAD:-127.0.0.1:29500}
python=${PYTHON:-${ATLAS_VENV:-$root/py-worker/.venv}/bin/python}
export PYTHONPATH="$root/py-worker${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m torch.distributed.run \
  --nnodes "$nodes" --node-rank "$node" --nproc-per-node "${RANKS:-1}" \
  --master-addr "${head%:*}" --master-port "${head##*:}" \
  -m atlas_worker serve --torchrun "$@"
