-- SPDX-License-Identifier: MIT
-- What bench/servers.py reads: requests, microseconds, the 99th percentile in microseconds, failures.
function done(summary, latency, requests)
	local e = summary.errors
	print("done", summary.requests, summary.duration, latency:percentile(99), e.connect + e.read + e.write + e.status)
end
