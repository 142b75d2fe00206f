#!/usr/bin/env bash
# What helps IDs that are new after training: the figures of docs/leakage.md. Goes on where it stopped.
#   bash docs/results/new-ids.sh [LOG] [SEED …]    # ml-100k or simulator; without them both, seeds 1 2 3
set -euo pipefail
ctr() { .venv/bin/python -m pipelines.cli "$@"; }

logs=${1:-ml-100k simulator}
seeds=${*:2}
for log in $logs; do
  if [ "$log" = simulator ]; then
    [ -d data/simulator ] || ctr simulate --out data/simulator
    dropout='{item: 0.2, user: 0.2}' ids='[item,user,view.item,cart.item]'
  else
    [ -d data/ml-100k ] || ctr download ml-100k --out data/ml-100k
    dropout='{item: 0.2}' ids='[item,rated.item]'
  fi
  for spec in "$log" "$log-min-count-5"; do
    [ -d "data/$spec-dataset" ] ||
      ctr prepare --spec "pipelines/configs/specs/$spec.yaml" --source "data/$log" --out "data/$spec-dataset"
  done
  declare -A change=([shipped]="dataset=data/$log-dataset" [min-count-5]="dataset=data/$log-min-count-5-dataset"
    [id-dropout]="loader.id_dropout=$dropout" [no-ids]="drop=$ids")
  arms=()
  for cell in shipped min-count-5 id-dropout no-ids; do
    files=()
    for seed in ${seeds:-1 2 3}; do
      run=runs/new-ids/$log/$cell-$seed
      ctr train "pipelines/configs/$log-hyformer.yaml" --set "seed=$seed" --set "run=$run" --set "${change[$cell]}"
      [ -f "$run/predictions/test.parquet" ] || ctr predict "$run"
      files+=("$run/predictions/test.parquet")
    done
    arms+=("$cell=$(IFS=,; echo "${files[*]}")")
  done
  for where in all known_user=known known_user=new known_item=known known_item=new; do
    only=(); [ "$where" = all ] || only=(--where "$where")
    ctr evaluate --compare "${arms[@]}" --metric auc "${only[@]}" --out "runs/new-ids/$log/$where"
  done
done
