#!/usr/bin/env bash
# Counts the instructions of each stage of a payment's journey (benches/stages.rs) with callgrind, beside the counts that are kept in
# benches/instructions.tsv. A change of more than 2 % is flagged: whoever wants it renews the file with UPDATE=1. Instructions repeat where
# times do not, on any machine with the same processor features, compiler and profile.
#   UPDATE=1  writes the file anew      STAGE=name  only this one
set -euo pipefail
cd "$(dirname "$0")/.."
kept=benches/instructions.tsv
work=target/instructions
mkdir -p "$work"

command -v valgrind >/dev/null || { echo "SKIPPED instructions: no valgrind" | tee -a "${MANGROVE_SKIPS:-/dev/null}"; exit 0; }
binary=${STAGES_BINARY:-$(scripts/cargo.sh bench --profile release --locked --workspace --bench stages --no-run 2>&1 |
  tee "$work/build.log" | sed -n 's/.*Executable .*(\(.*\)).*/\1/p')}
[ -x "$binary" ] || { cat "$work/build.log"; exit 1; }

: >"$work/counts.tsv"
"$binary" --stages | while read -r stage; do
  [ -z "${STAGE:-}" ] || [ "$STAGE" = "$stage" ] || continue
  elements=$(valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect='*counted_run*' "$binary" --count "$stage" 2>"$work/log") ||
    { cat "$work/log"; exit 1; }
  instructions=$(sed -n 's/^summary: \([0-9]*\).*/\1/p' "$work/out")
  [ "${instructions:-0}" -gt 0 ] || { echo "nothing was counted of: $stage"; exit 1; }
  printf '%s\t%s\n' "$stage" "$((instructions / elements))" >>"$work/counts.tsv"
done

[ ! -e $kept ] || awk -F'\t' '
  NR == FNR { kept[$1] = $2; next }
  !($1 in kept) { printf "  %-30s %9d  (none kept)\n", $1, $2; next }
  { change = 100 * ($2 - kept[$1]) / kept[$1]; flag = change > 2 || change < -2 ? "  <-- more than 2 %" : ""
    printf "  %-30s %9d  kept %9d  %+.1f %%%s\n", $1, $2, kept[$1], change, flag; if (flag) changed = 1 }
  END { if (changed) print "!! instructions changed: is that meant? UPDATE=1 scripts/instructions.sh keeps the new counts" }' \
  $kept "$work/counts.tsv" | tee "$work/report"
[ -e $kept ] || { echo "no counts are kept yet: UPDATE=1 scripts/instructions.sh keeps these"; column -t -s $'\t' "$work/counts.tsv"; }
[ -z "${UPDATE:-}" ] || cp "$work/counts.tsv" $kept
