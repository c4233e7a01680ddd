"""FastAGI as it is written in asyncio, with uvloop: reads an environment, looks whether the user serves the queue, answers.

    python3 asyncio_fastagi.py      prints `listening 127.0.0.1:PORT`
"""

import asyncio
import uvloop

USERS, QUEUES, FIRST_USER, FIRST_QUEUE = 1_000_000, 1_000, 2_000_000, 5_000
SERVED = {
    str(FIRST_USER + user): [str(FIRST_QUEUE + (user * 7 + position * 131) % QUEUES) for position in range(8)]
    for user in range(0, USERS, 16)
}


async def serve(reader, writer):
    environment = {}
    while (line := (await reader.readline()).decode().rstrip("\n")):
        key, _, value = line.partition(": ")
        environment[key] = value
    queue = environment["agi_arg_1"].removeprefix("queue=")
    allowed = queue in SERVED.get(environment["agi_accountcode"], ())
    verdict, reason = ("ALLOW", "assigned") if allowed else ("DENY", "unassigned_barred")
    writer.write(
        f'SET VARIABLE QW_REASON "{reason}"\nSET VARIABLE QW_ACTION "queue.login"\n'
        f'SET VARIABLE QW_QUEUES "{queue}"\nSET VARIABLE QW_TARGET ""\nSET VARIABLE QW_SPY_OPTIONS ""\n'
        f'SET VARIABLE QW_VERDICT "{verdict}"\n'.encode()
    )
    writer.write_eof()
    await reader.read()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"listening {host}:{port}", flush=True)
    await server.serve_forever()


uvloop.run(main())
