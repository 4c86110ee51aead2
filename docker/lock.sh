#!/bin/sh
# Makes docker/*.lock anew from pyproject.toml and constraints.txt, with a hash for every file. Needs uv.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
# s3fs asks for an older botocore than the tests' moto: in the image there is no moto.
grep -v '^boto' constraints.txt >"$folder/constraints.txt"
# uv finds a CUDA build of torch, and with it what that needs. Both are cut from one resolution.
uv pip compile --quiet pyproject.toml docker/requirements.in \
    --extra postgresql --extra sentences --extra signing --extra transformers --extra vision \
    --constraint "$folder/constraints.txt" --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --generate-hashes --no-annotate --no-header --output-file "$folder/all"
awk -v folder="$folder" '
    /^[a-zA-Z]/ { into = /^(torch|triton|cuda-|nvidia-)/ ? "cuda" : "requirements" }
    { print > (folder "/" into) }' "$folder/all"
mv "$folder/cuda" docker/cuda.lock
mv "$folder/requirements" docker/requirements.lock
