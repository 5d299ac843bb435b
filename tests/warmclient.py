"""What stands in a test's PATH for a program of flavor or for Python: it has the program forked (`tests/warmshim.py`).

Its arguments are a socket and the command that it stands for. It passes its arguments, environment, folder and streams
on, and signals; it ends as the program ends. Where a fork might make a difference the command is executed. It imports
what an interpreter has built in, since its own start is what it saves.
"""

import _signal
import _socket
import marshal
import os
import sys

SIGNALS = (
    *(_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT),
    *(_signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2),
)


def main():
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    command = sys.argv[2:]
    pid, early = 0, []

    def pass_on(number, _):
        os.kill(pid, number) if pid else early.append(number)

    for number in SIGNALS:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, pass_on)
    os.umask(umask := os.umask(0))
    handles = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
    try:
        channel.connect(sys.argv[1])
        request = marshal.dumps((command, dict(os.environ), os.getcwd(), umask))
        channel.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handles)])
        answer = channel.recv(64)
    except OSError:
        answer = b""
    if not answer:
        for number in early:
            _signal.signal(number, _signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os.execv(command[0], command)
    pid = int(answer)
    for number in early:  # the program may have run before its number came
        os.kill(pid, number)
    code = int(channel.recv(64) or b"1")
    if code < 0:
        _signal.signal(-code, _signal.SIG_DFL) if -code not in (_signal.SIGKILL, _signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
