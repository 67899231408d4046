#!/bin/sh
# Make an environment: trainyard and an extra, at the versions and hashes of requirements.lock.
#   jobs/environment.sh SOURCE TARGET [EXTRA=train,llm,trackers]        UV: the uv to use (default: its own); PYTHON: the interpreter of the pods
# The scripts of TARGET/bin find their interpreter beside them, so that it works wherever it is mounted.
set -eu
# The system's certificates, to which a company may have added its own; pip and uv bring others by default.
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -r "$certificates" ]; then
    export PIP_CERT="${PIP_CERT:-$certificates}" SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"
fi
source=$1 target=$2 extra=${3:-train,llm,trackers} python=${PYTHON:-/usr/bin/python3}
if [ -z "${UV:-}" ]; then
    "$python" -m venv /tmp/uv
    /tmp/uv/bin/pip install --quiet --disable-pip-version-check "$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' "$source/requirements.lock")"
    UV=/tmp/uv/bin/uv
fi
# A builder may lend its cache of packages.
if [ -d /var/cache/uv ]; then export UV_CACHE_DIR=/var/cache/uv; fi
export DS_BUILD_OPS=0 VIRTUAL_ENV="$target"
"$UV" venv --quiet --clear --relocatable --python "$python" "$target"
# What deepspeed and trainyard itself are built with.
"$UV" pip install --quiet --constraint "$source/requirements.lock" hatchling editables setuptools wheel
"$UV" pip install --quiet --constraint "$source/requirements.lock" --no-build-isolation-package deepspeed --no-build-isolation-package trainyard "$source[$extra]"
# A pod cannot write here, and would compile every module at each start.
"$target/bin/python" -m compileall -q -j 0 "$target/lib" > /dev/null || true
