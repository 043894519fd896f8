-- SPDX-License-Identifier: MIT

-- The load is the argument after the address. "part": a connection pauses for some milliseconds after each answer.
function init(args)
	if args[1] == "part" then
		function delay()
			return math.random(1, 3)
		end
	end
end

-- What bench/servers.py reads: requests, microseconds, the 99th percentile in microseconds, failures.
function done(summary, latency, requests)
	local e = summary.errors
	print("done", summary.requests, summary.duration, latency:percentile(99), e.connect + e.read + e.write + e.status)
end
