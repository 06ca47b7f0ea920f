#!/usr/bin/env bash
# Shows that the image works where no container engine runs: buildah builds it from BASE and runs its entry point and health check in a
# chroot, as its user, and `atlas` computes there over TLS, token and CURVE what it computes here, to the byte. Run it as root, with buildah.
# Usage: docker/prove.sh BASE [further arguments of buildah build, e.g. --volume for pip's packages]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
base=$1
shift
work=$(mktemp -d)
container=
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$container" ] || buildah rm "$container" >/dev/null
  rm -rf "$work"
}
trap finish EXIT
atlas() { node --import=tsx src/cli/main.ts "$@"; }
config() { # of the image: the words at an expression, one a line
  buildah inspect --type container "$container" | node -p "
    const { config } = JSON.parse(require('node:fs').readFileSync(0, 'utf8')).Docker; [$1].flat().join('\n')"
}

# HEALTHCHECK is lost in the OCI format.
buildah build --layers --format docker --build-arg "BASE=$base" "$@" --file docker/Dockerfile --tag atlas-symmetry-worker:proof .
container=$(buildah from atlas-symmetry-worker:proof)
user=$(config config.User)
mapfile -t serve < <(config "config.Entrypoint, config.Cmd")
mapfile -t healthy < <(config "config.Healthcheck.Test.slice(1)")
echo "user $user; ${serve[*]}; ${healthy[*]}"

atlas worker keygen --host 127.0.0.1 --out "$work/keys" >/dev/null
mkdir "$work/secrets"
install -o "${user%:*}" -m 400 "$work/keys/server.pem" "$work/secrets/atlas-cert"
install -o "${user%:*}" -m 400 "$work/keys/server-key.pem" "$work/secrets/atlas-key"
install -o "${user%:*}" -m 400 "$work/keys/token" "$work/secrets/atlas-token"
chmod 755 "$work"
run=(buildah run --volume "$work/secrets:/run/secrets:ro" "$container" --)
"${run[@]}" "${serve[@]}" >"$work/ready" 2>"$work/log" &
runner=$!
started=$SECONDS
until "${run[@]}" "${healthy[@]}"; do
  kill -0 $runner && [ $((SECONDS - started)) -lt 120 ] || { cat "$work/log"; exit 1; }
  sleep 1
done
server=$(node -p 'JSON.parse(process.argv[1]).pid' "$(cat "$work/ready")")
echo "healthy after $((SECONDS - started)) s as process $server of user $(stat -c %u "/proc/$server")"

remote=(--worker grpcs://127.0.0.1:50051 --ca "$work/keys/ca.pem" --token-file "$work/keys/token")
tiny=(pde --atlas 2 --task discover --N 64 --epochs 1 --fixed_seed --quiet)
atlas "${tiny[@]}" --threads "$(nproc)" --runs "$work/here"
atlas "${tiny[@]}" "${remote[@]}" --runs "$work/there"
! atlas worker info --worker grpcs://127.0.0.1:50051 --ca "$work/keys/ca.pem" 2>"$work/refused"
cat "$work/refused"
(cd "$work"/here/*/checkpoints && sha256sum -- *) | tee "$work/sums"
(cd "$work"/there/*/checkpoints && sha256sum --check --quiet "$work/sums")
echo "the same bytes over TLS"

kill -TERM "$server"
wait $runner
server=
echo "ended in order"

# With Podman, which shares buildah's images, also as a run starts it.
if podman version >/dev/null 2>&1 && ! docker version >/dev/null 2>&1; then
  atlas "${tiny[@]}" --threads "$(nproc)" --runs "$work/contained" --worker docker:localhost/atlas-symmetry-worker:proof
  (cd "$work"/contained/*/checkpoints && sha256sum --check --quiet "$work/sums")
  [ -z "$(podman ps --all --quiet --filter name=atlas-)" ]
  echo "the same bytes from a container of a run's own, which is gone"
fi
