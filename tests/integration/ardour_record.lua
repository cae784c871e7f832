-- Record one MIDI track in Ardour without its windows, and print the notes of its regions.
--   SESSION=<new folder> SECONDS=<to roll> ardour7-lua ardour_record.lua
-- Lines: "ready <name of the track's JACK port>", "rolling", then for each note "note <start s> <length s> <channel> <pitch> <velocity>",
-- and "done". Times are of the session, whose tempo is 120.

AudioEngine:set_backend("JACK", "ardour", "")
AudioEngine:start()
local session = create_session(os.getenv("SESSION"), "take", 48000)
local one = ARDOUR.ChanCount(ARDOUR.DataType("midi"), 1)
local tracks = session:new_midi_track(one, one, true, ARDOUR.PluginInfo(), nil, nil, 1, "notes",
	ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, true)
local track = nil
for t in tracks:iter() do
	track = t
	t:rec_enable_control():set_value(1, PBD.GroupControlDisposition.NoGroup)
end

local function sleep(seconds)
	for _ = 1, math.floor(seconds * 10) do ARDOUR.LuaAPI.usleep(100000) end
end

local function seconds(beats)
	local whole, ticks = string.match(tostring(beats), "(%d+):(%d+)")
	return (whole + ticks / 1920) / 2
end

local function say(...)
	io.stdout:write(table.concat({...}, " "), "\n")
	io.stdout:flush()
end

session:goto_start()
sleep(0.5)
session:maybe_enable_record()
say("ready", "ardour:" .. track:input():nth(0):name())
sleep(0.5)
session:request_roll(ARDOUR.TransportRequestSource.TRS_UI)
say("rolling")
sleep(tonumber(os.getenv("SECONDS")))
session:request_stop(false, false, ARDOUR.TransportRequestSource.TRS_UI)
sleep(1.5)
session:save_state("")
for region in track:to_track():playlist():region_list():iter() do
	local begin = region:position():samples() / 48000
	local model = region:to_midiregion():midi_source(0):model()
	for note in ARDOUR.LuaAPI.note_list(model):iter() do
		say("note", string.format("%.6f %.6f %d %d %d", begin + seconds(note:time()), seconds(note:length()),
			note:channel(), note:note(), note:velocity()))
	end
end
say("done")
close_session()
quit()
