# mypy: allow-untyped-defs, allow-untyped-calls
import json, sys, time, zmq  # noqa: E401, I001

state, out, *photos = sys.argv[1:]
socket = zmq.Context().socket(zmq.REQ)
with open(f"{state}/endpoint.json") as file:
    socket.connect(json.load(file)["frontend"])


def ask(type, **fields):  # noqa: A002
    socket.send_json({"v": 1, "type": type, **fields})
    return socket.recv_json()


batch = ask("open_batch", recipe="thumbs", out=out)["batch"]
ask("add_items", batch=batch, chunk=0, root="/", names=[photo.lstrip("/") for photo in photos])
ask("close_batch", batch=batch)
while ask("progress", batch=batch)["state"] not in ("finished", "cancelled"):
    time.sleep(0.1)
for result in ask("results", batch=batch)["results"]:
    print(result["state"], result["path"], [output["path"] for output in result["outputs"]])
