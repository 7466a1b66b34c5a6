#!/usr/bin/env bash
# Creates .venv: requirements.txt where there is an NVIDIA GPU, the locked CPU set otherwise.
# Does nothing when the environment is up to date with that list. PYTHON selects the interpreter (3.11 or newer),
# INSTALLER=uv the faster installer, which has to be there.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=training_scripts/setup
torch_cpu_index=https://download.pytorch.org/whl/cpu

list=requirements-cpu.lock
if command -v nvidia-smi > /dev/null && [[ $(nvidia-smi -L 2> /dev/null) == *GPU* ]]; then list=requirements.txt; fi
stamp=.venv/.installed-from
wanted="$list $(cat "$list" setup.py "$here"/*.sh "$here"/*.py | sha256sum | cut -d' ' -f1)"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

python=${PYTHON:-python3}
stop() {
    echo "$1" >&2
    exit 1
}
command -v "$python" > /dev/null || stop "No $python here: install Python 3.11 or newer, or select one with PYTHON=..."
found=$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "Python 3.11 or newer is required, and $python is $found: install one, and select it with PYTHON=python3.11"
"$python" -c 'import ensurepip, venv' 2> /dev/null ||
    stop "$python has no venv: apt-get install python$found-venv (Debian, Ubuntu), or select another with PYTHON=..."
[ "${INSTALLER:-pip}" = pip ] || command -v "$INSTALLER" > /dev/null ||
    stop "INSTALLER=$INSTALLER is not installed: pip install uv, or leave INSTALLER out"
echo "Setting up .venv from $list (several minutes the first time)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
rm -f "$stamp"
log=.venv/pip.log  # pip's messages; the screen gets them only where it fails
pip() {
    local install=(.venv/bin/python -m pip --disable-pip-version-check "$@")
    [ "${INSTALLER:-pip}" = pip ] || install=("$INSTALLER" pip "$1" --python .venv/bin/python "${@:2}")
    "${install[@]}" >> "$log" 2>&1 || {
        tail -n 30 "$log" >&2
        echo "${INSTALLER:-pip} failed; its messages are in $log" >&2
        return 1
    }
}
export PIP_NO_COMPILE=1 # at the end, on all cores at once
pip install --quiet --upgrade pip

# The CUDA extension only fills small holes in masks; the tracker uses it where it is built.
export SAM2_BUILD_CUDA=0
if [ "$list" = requirements.txt ]; then
    pip install --quiet setuptools wheel "$(grep -E '^torch==' "$list")"
    # sam2 is built without isolation (its build would download another torch); its requirements are in the list.
    grep -v '^sam2==' "$list" > .venv/gpu-list.txt
    pip install --quiet -r .venv/gpu-list.txt
    pip install --quiet --no-build-isolation --no-deps "$(grep -E '^sam2==' "$list")"
else
    # shellcheck disable=SC2046  # one argument a package
    pip install --quiet --no-deps $(grep -E '^(setuptools|wheel)==' "$list")
    # PyTorch's own index has CPU builds of both; without access to it the configured index is used.
    if .venv/bin/python -c "import urllib.request as u; u.urlopen('$torch_cpu_index/', timeout=5)" 2> /dev/null; then
        # shellcheck disable=SC2046
        pip install --quiet --no-deps --index-url "$torch_cpu_index" $(grep -E '^(torch|torchvision)==' "$list")
    fi
    # --no-deps: the lock is complete without torchaudio and torchcodec, which vLLM requires, which are CUDA builds on
    # PyPI, and which nothing here imports.
    pip install --quiet --no-deps --no-build-isolation -r "$list"
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rm -f "$site/torchvision_cpu_hook.pth"
    if ! .venv/bin/python -c 'import torchvision' 2> /dev/null; then
        cp "$here/torchvision_cpu_hook.py" "$site/"
        echo 'import torchvision_cpu_hook' > "$site/torchvision_cpu_hook.pth"
        .venv/bin/python -c 'import torchvision'
    fi
fi
pip install --quiet --no-deps --no-build-isolation --editable .
# a few files of packages are templates or of another version of Python, which pip passes over in silence, too
.venv/bin/python -m compileall -q -j 0 "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    >> "$log" 2>&1 || true
echo "$wanted" > "$stamp"
