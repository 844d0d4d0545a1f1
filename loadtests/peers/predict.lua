-- wrk: POST the bodies of the file BODIES in turn, with the header fields of FIELDS ("Name: value" a line); print the
-- outcome as one line of JSON. In BODIES each body has its length on a line before it.
local requests, bodies, fields = {}, {}, {}
local turn = 0

local file = io.open(os.getenv("BODIES"), "rb")
while true do
  local length = file:read("*n")
  if not length then break end
  file:read(1)
  bodies[#bodies + 1] = file:read(length)
end
file:close()
for line in io.lines(os.getenv("FIELDS")) do
  local name, value = line:match("^([^:]+): (.*)$")
  fields[name] = value
end

function init()
  for i, body in ipairs(bodies) do
    requests[i] = wrk.format("POST", nil, fields, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %.6f, "failed": %d, "p50_ms": %.4f, "p99_ms": %.4f, "max_ms": %.4f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
