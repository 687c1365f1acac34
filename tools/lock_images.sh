#!/usr/bin/env bash
# Lock what longshore's images have: all versions in lock.txt, and for each extra the names of what it takes of them.
# What only steps of pipelines need is left out of the servers.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=sdk/images/requirements
resolve=(.venv/bin/uv pip compile --quiet --universal --python-version 3.11)

"${resolve[@]}" --generate-hashes --extra all --constraints requirements/dev.txt \
    --custom-compile-command "make lock" setup.cfg requirements/image.in -o $folder/lock.txt

names() { # names FILE OPTIONS: the names that a resolution with these options has
    "${resolve[@]}" --no-annotate --no-header --constraints $folder/lock.txt "${@:2}" |
        sed 's/[ =;].*//' | sort -u >"$folder/$1.txt"
}
names models <(printf '%s\n' joblib numpy pandas scikit-learn)
names kserve --extra kserve --excludes <(printf '%s\n' docstring-parser kfp) setup.cfg
for extra in serve flask django xgboost lightgbm onnx s3 gcs azure; do
    names "${extra/serve/fastapi}" --extra "$extra" setup.cfg \
        --excludes <(printf '%s\n' docstring-parser kfp kubernetes rich)
done

# what models are of has the versions that they are trained with
sed -n 's/ \\$//; /^\(joblib\|lightgbm\|numpy\|pandas\|scikit-learn\|scipy\|xgboost\|xgboost-cpu\)==/p' \
    requirements/dev.txt >build/model-libraries.txt
"${resolve[@]}" --generate-hashes --constraints build/model-libraries.txt \
    --overrides requirements/image-seldon-overrides.in \
    --custom-compile-command "make lock" requirements/image-seldon.in -o $folder/lock-seldon.txt

for framework in torchserve tensorflow; do
    "${resolve[@]}" --generate-hashes \
        --extra local --extra "$framework" --extra onnx --extra s3 --extra gcs --extra azure \
        --constraints requirements/dev.txt --custom-compile-command "make lock" \
        setup.cfg requirements/image.in -o "$folder/lock-${framework/torchserve/torch}.txt"
done
