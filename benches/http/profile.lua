-- Profiles of users at random, at 1,000 requests a second: 4 connections that wait 0 to 8 ms between two.
dofile((debug.getinfo(1).source:match("@(.*)/") or ".") .. "/common.lua")

function delay()
  return math.random(0, 8)
end

function request()
  return wrk.format("GET", "/v1/users/" .. encoded(users[math.random(#users)]) .. "/profile")
end
