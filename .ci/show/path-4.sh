#!/usr/bin/env bash
# The controller killed at every step of an effect, and the leader killed TIMES times (20): no
# finding lost or doubled, another leads within 10 s each time. And the API server gone for
# OUTAGE_SECS (60), the watch's version expired (410 Gone) when it is back. SEED has no meaning here: what
# varies is when the kernel and the API server answer.
set -euo pipefail
cd "$(dirname "$0")/../.."

times=${TIMES:-20}
report=$PWD/target/show/path-4.json
failovers=$PWD/target/show/path-4-failovers.json
log=$PWD/target/show/path-4.log
mkdir -p target/show
rm -f "$report" "$failovers"

run() {
  REQUIRE_ALL=1 TIMES=$times FAILOVER_REPORT=$failovers .ci/test tests --quiet --exact \
    --nocapture --test-threads 1 "$1" >"$log" 2>&1
}

holds=true
if run controller::killed_at_every_step_of_an_effect_no_finding_is_lost_or_doubled; then
  echo 'killed before the write, after the write, before the receipt: nothing lost, nothing twice'
  crashes=true
else
  cat "$log"
  crashes=false holds=false
fi
if run controller::the_leader_killed_again_and_again_another_leads_within_ten_seconds; then
  # The table of failovers, as the test prints it.
  sed -n '/^failover  seconds/,/^after SIGTERM/p' "$log"
  echo "leader killed $times times: nothing lost, nothing twice"
else
  cat "$log"
  holds=false
fi
if OUTAGE_SECS=${OUTAGE_SECS:-60} \
  run controller::an_api_server_that_is_gone_for_a_while_costs_nothing_but_time; then
  grep '^the API server was gone' "$log"
  echo 'it came back with 410 Gone: nothing lost, nothing twice'
  outage=true
else
  cat "$log"
  outage=false holds=false
fi
[[ -s $failovers ]] || echo null >"$failovers"
printf '{"holds": %s, "crashes_at_every_step": %s, "leader_killed": %s, "outage": %s, "failover": %s}\n' \
  "$holds" "$crashes" "$times" "$outage" "$(cat "$failovers")" >"$report"
rm -f "$failovers"
echo "written: ${report#"$PWD"/}"
$holds
