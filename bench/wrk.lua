-- Sends prepared requests one after the other: wrk … -s wrk.lua URL -- FILE BYTES FIRST MAX_PAUSE_MS AT_END
local file, bytes, pause, at_end

function init(args)
  file = assert(io.open(args[1], 'rb'))
  bytes = tonumber(args[2])
  file:seek('set', bytes * tonumber(args[3]))
  pause = tonumber(args[4])
  at_end = args[5]
  math.randomseed(1)
  -- wrk asks for a delay only where there is a function for it.
  if pause > 0 then
    function delay() return math.random(0, pause) end
  end
end

function request()
  local text = file:read(bytes)
  if text == nil then
    if at_end == 'exit' then os.exit(0) end
    file:seek('set', 0)
    text = file:read(bytes)
  end
  return text
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"us":%d,"refused":%d,"broken":%d,"p50":%f,"p99":%f,"max":%f}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
