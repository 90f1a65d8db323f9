-- wrk's script: one payment a request, each with a tx_id of its own, over keep-alive.
local thread_number = 0
function setup(thread)
  thread:set("number", thread_number)
  thread_number = thread_number + 1
end

local count = 0
local run = os.time()
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
  count = count + 1
  local user = (count * 7919) % 100000
  local body = string.format('{"user_id":"u%07d","amount":%d.25,"merchant":"m%04d","currency":"EUR","tx_id":"%d-%d-%d"}',
    user, count % 500, count % 2000, run, number, count)
  return wrk.format(nil, "/v1/transactions", nil, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"bench":"single","requests":%d,"seconds":%.2f,"per_second":%.0f,"p50_ms":%.2f,"p99_ms":%.2f,"not_2xx":%d,"socket_errors":%d}\n',
    summary.requests, summary.duration / 1e6, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
