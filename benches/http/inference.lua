-- Inference for users at random, at 5,000 requests a second: 100 connections that wait 0 to 40 ms between two.
dofile((debug.getinfo(1).source:match("@(.*)/") or ".") .. "/common.lua")
wrk.headers["Content-Type"] = "application/json"

function delay()
  return math.random(0, 40)
end

function request()
  local body = string.format('{"user_id":"%s","transaction":{"amount":%d.25,"merchant":"m%04d"}}', users[math.random(#users)],
    math.random(500), math.random(2000))
  return wrk.format("POST", "/v1/inference", nil, body)
end
