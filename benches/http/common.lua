-- What wrk's scripts share: users, and the line that they print.
users = {}
for user in io.lines(os.getenv("USERS")) do
  users[#users + 1] = user
end
math.randomseed(os.time())

function encoded(text)
  return (text:gsub("[^%w%-%._~]", function(byte) return string.format("%%%02X", byte:byte()) end))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"bench":"%s","requests":%d,"per_second":%.0f,"p50_ms":%.2f,"p99_ms":%.2f,"p99_9_ms":%.2f,"not_2xx":%d,"socket_errors":%d}\n',
    os.getenv("PHASE"), summary.requests, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
