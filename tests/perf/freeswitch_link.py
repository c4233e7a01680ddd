"""Measures how long a foreign tier and a foreign eavesdrop stand at a FreeSWITCH with a link that enforces.

  python3 tests/perf/freeswitch_link.py ADDRESS:PORT PASSWORD QUEUE AGENT [ROUNDS]

The link: members and supervisions = "enforce", poll_interval_seconds = 1, undo_max_per_minute = 100000. Nobody may be
logged in as AGENT. A round takes 1.1 s, because the share bound admits three steps from one poll to the next.
"""
import socket
import sys
import time
import urllib.parse


class EventSocket:
    """One connection to the event socket."""

    def __init__(self, address, password):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.buffer = b""
        self.events = []
        self.read()
        assert self.command("auth " + password).startswith("+OK"), "the password is wrong"

    def read(self):
        """Reads one message: its headers and its body."""
        def more():
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        while b"\n\n" not in self.buffer:
            more()
        head, _, self.buffer = self.buffer.partition(b"\n\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\n"))
        length = int(headers.get("Content-Length", 0))
        while len(self.buffer) < length:
            more()
        body, self.buffer = self.buffer[:length].decode(), self.buffer[length:]
        return headers, body

    def command(self, command):
        """Sends a command and returns its answer; events that come before it are kept."""
        self.socket.sendall((command + "\n\n").encode())
        while True:
            headers, body = self.read()
            if headers["Content-Type"] == "command/reply":
                return headers["Reply-Text"]
            if headers["Content-Type"] == "api/response":
                return body
            self.events.append(body)

    def received(self, seconds):
        """The events up to this time, each as a table."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                self.events.append(self.read()[1])
            except TimeoutError:
                break
        self.socket.settimeout(None)
        events, self.events = self.events, []
        lines = [[line.split(": ", 1) for line in event.split("\n") if ": " in line] for event in events]
        return [{name: urllib.parse.unquote(value) for name, value in event} for event in lines]


def show(what, seconds):
    """Prints the percentiles."""
    ordered = sorted(seconds)
    at = lambda part: 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))]
    print(f"{what}: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, longest {at(1):.1f} ms, of {len(ordered)}")


def tiers(pbx, queue, agent, rounds):
    """From the answer to `tier add` until the queue has no such tier."""
    for _ in range(rounds):
        pbx.command(f"api callcenter_config tier del {queue} {agent}")
        # The link logs the agent out after the tier.
        time.sleep(0.1)
        pbx.command(f"api callcenter_config agent set status {agent} Available")
        time.sleep(1)
        pbx.command(f"api callcenter_config tier add {queue} {agent} 1 1")
        began = time.monotonic()
        while agent in pbx.command(f"api callcenter_config queue list tiers {queue}") and time.monotonic() < began + 5:
            pass
        yield time.monotonic() - began


def eavesdrops(pbx, rounds):
    """From the beginning of the application to the hang-up, by the clock of FreeSWITCH."""
    target = pbx.command("api originate null/target &park()").split()[1]
    pbx.command("event plain CHANNEL_EXECUTE CHANNEL_HANGUP_COMPLETE")
    for _ in range(rounds):
        pbx.command(f"bgapi originate null/listener &eavesdrop({target})")
        times = {}
        for event in pbx.received(0.7):
            if event.get("Application", "eavesdrop") == "eavesdrop" and event["Unique-ID"] != target:
                times[event["Event-Name"]] = int(event["Event-Date-Timestamp"]) / 1e6
        yield times.get("CHANNEL_HANGUP_COMPLETE", float("inf")) - times["CHANNEL_EXECUTE"]
    pbx.command(f"api uuid_kill {target}")


def main(address, password, queue, agent, rounds="50"):
    """Measures both."""
    pbx = EventSocket(address, password)
    show("a foreign tier", list(tiers(pbx, queue, agent, int(rounds))))
    show("a foreign eavesdrop", list(eavesdrops(pbx, int(rounds))))


main(*sys.argv[1:])
