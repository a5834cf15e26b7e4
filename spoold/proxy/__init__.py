"""A forward proxy with a list of hosts: the only way out for what downloads pinned sources.

Theory of operation: a fetch runs in a network namespace in which nothing but loopback is up. The builder makes the
namespace and a listening socket in it, and hands that socket to this proxy with an :class:`Order` (``order``). The
proxy serves the socket from outside until the builder says that the fetch has ended, and answers with a
:class:`Report`: whom the fetch asked for, what came of it, how many bytes went through. From that, and not from what
the fetch prints, the builder tells whose fault a failure was.

* The list of hosts, and the operator's own networks that hosts may be in, are the proxy's: it reads them from the
  settings itself, so that a builder that was taken over cannot name hosts.
* The proxy resolves names, and connects to the very address that it checked (``reaching``). A name that resolves to
  something else a moment later changes nothing.
* All that goes through counts, tunnels of TLS as well: at the bound on bytes or on time everything is closed
  (``passing``). Slow connections are few, since each has its time, and they are one fetch's alone.

It is a process and a user of its own under its unit (``spoold fetch``, ``serving``), with one process for each fetch.
Where there is no unit, such as at a desk, the builder starts that one process itself.

A proxy of our own, and no squid: squid neither bounds the bytes and the time of a CONNECT nor serves a socket that was
handed over; tinyproxy connects to names that resolve to loopback.
"""
