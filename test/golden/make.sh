#!/usr/bin/env bash
# Makes every golden vector again. Usage: bash test/golden/make.sh [VENV]   (Python 3.11; VENV is made when absent)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${1:-$here/../../.cache/golden-venv}
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q torch==2.13.0
  "$venv/bin/pip" install -q -r "$here/requirements.txt"
fi
export CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
"$venv/bin/python" "$here/scripts/tokenizer.py" "$here/tokenizer"
"$venv/bin/python" "$here/scripts/qwen3-5.py" "$here/qwen3_5"
"$venv/bin/python" "$here/scripts/gated-deltanet.py" "$here/gated_deltanet"
"$venv/bin/python" "$here/scripts/mamba2.py" "$here/mamba2"
"$venv/bin/python" "$here/scripts/fla-mixers.py" "$here"
"$venv/bin/python" "$here/scripts/qwen-moe.py" "$here"
"$venv/bin/python" "$here/scripts/granite-moe-hybrid.py" "$here/granitemoehybrid"
"$venv/bin/python" "$here/scripts/minimax.py" "$here/minimax"
"$venv/bin/python" "$here/scripts/x-lstm.py" "$here/xlstm"
"$venv/bin/python" "$here/scripts/rwkv7.py" "$here/rwkv7"
"$venv/bin/python" "$here/scripts/sampling.py" "$here/sampling"
"$venv/bin/python" "$here/scripts/mechanisms.py" "$here/mechanisms"
"$venv/bin/python" "$here/scripts/routers.py" "$here/mechanisms"
"$venv/bin/python" "$here/scripts/relative-bias.py" "$here/mechanisms"
