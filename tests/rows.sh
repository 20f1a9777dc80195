# The rows of bench.sh and load.sh, which read this file: what is promised, the figure, how it stands. $failed is 1 when a must is missed.
# shellcheck shell=sh
failed=0
titles() { printf '%-66s %10s %10s %10s\n' "$1" figure must goal; }
row() { # row WHAT FIGURE MUST GOAL [NOTE]; bounds as "< 40" or ">= 1.0"
    awk -v what="$1" -v figure="$2" -v must="$3" -v goal="$4" -v note="${5:-}" '
    function holds(bound, p) {
        split(bound, p, " ")
        return p[1] == "<" ? figure + 0 < p[2] + 0 : p[1] == ">" ? figure + 0 > p[2] + 0 : figure + 0 >= p[2] + 0
    }
    BEGIN {
        verdict = figure == "" ? "NO FIGURE" : holds(goal) ? "goal" : holds(must) ? "must" : "MISSED"
        printf "%-66s %10s %10s %10s  %s%s\n", what, figure == "" ? "-" : figure, must, goal, verdict, note == "" ? "" : "  (" note ")"
        exit verdict == "MISSED" || verdict == "NO FIGURE"
    }' || failed=1
}
