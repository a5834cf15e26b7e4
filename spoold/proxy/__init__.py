"""A forward proxy with a list of hosts: the only way out for programs that download pinned sources.

Theory of operation: a fetch runs in a network namespace in which only loopback is up. The builder makes the namespace
and a listening socket in it, and hands that socket to this proxy with an :class:`Order` (``order``). The proxy serves
the socket from outside until the builder says that the fetch has ended. It then answers with a :class:`Report`, which
tells which hosts the fetch asked for, what came of that, and how many bytes went through. The builder uses the report,
and not the output of the fetch, to tell whose fault a failure was.

* The proxy reads the list of hosts, and the operator's own networks that hosts may be in, from the settings itself. So
  a builder that an attacker took over cannot name hosts.
* The proxy resolves names, and connects to the very address that it checked (``reaching``). A name that resolves to
  another address a moment later changes nothing.
* All bytes count, those in TLS tunnels too. When the bound on bytes or on time is reached, everything is closed
  (``passing``). Slow connections are few, since each has a time limit, and they harm only their own fetch.

Under its unit (``spoold fetch``, ``serving``) the proxy runs as a user of its own, with one process for each fetch.
Where there is no unit, such as on a developer's machine, the builder starts that one process itself.

The proxy is our own for these reasons: squid bounds neither the bytes nor the time of a CONNECT, and cannot serve a
socket that is handed over. tinyproxy connects to names that resolve to loopback.
"""
