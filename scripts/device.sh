#!/bin/bash
# Everything that needs a GPU, in about five minutes: the tests, the benchmark, the profiles, the models' throughput.
# Each part ends in time and survives the others; PARTS="tests gpu" takes some. Results below $OUT, else build/device.
# PYTHON may be set, and DEVICE=cpu TINY=1, which is for any machine.

out=${OUT:-build/device} python=${PYTHON:-python3} device=${DEVICE:-cuda}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.." || exit 1
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD:$PYTHONPATH TQDM_DISABLE=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
tiny=() small=()
[ -n "$TINY" ] && tiny=(--tiny) && small=(--n 3000 --exact 600 --beside 400 --m 50 --dims 24 16 --repeats 1)

part() {  # NAME SECONDS COMMAND...: its output on the screen and in NAME.log
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  [[ " ${PARTS:-$name} " == *" $name "* ]] || return
  echo "== $name"
  timeout -k 5 "$limit" "$@" 2>&1 | cut -c1-400 | tee "$out/$name.log"
  echo "== $name: ended with ${PIPESTATUS[0]} after $((SECONDS - start)) s"
}

part versions 60 "$python" -c "import sys, torch, numpy, scipy; print(sys.version, torch.__version__, numpy.__version__, scipy.__version__); print(torch.cuda.is_available() and torch.cuda.get_device_name())"
part tests 110 "$python" -m pytest -q --tb=short --durations=8 -p no:cacheprovider -o filterwarnings=default -m gpu \
  tests/test_cuda.py tests/test_feed.py tests/test_loss.py
part gpu 150 "$python" benchmarks/gpu.py --device "$device" "${small[@]}" --folder /tmp/spec-benchmark --out "$out/gpu.json"
part gpu-profile 70 "$python" benchmarks/gpu_profile.py --device "$device" "${tiny[@]}" --folder /tmp/spec-benchmark --out "$out/gpu-profile.json"
part gpu-models 100 "$python" benchmarks/gpu_models.py --device "$device" "${tiny[@]}" --out "$out/gpu-models.json"
rm -f "$out/versions.log"
ls -la "$out"
