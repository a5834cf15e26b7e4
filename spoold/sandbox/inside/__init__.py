"""What runs inside the container: the supervisor, process 1, and the only process in it that is not the job's.

Theory of operation. The supervisor runs as the container's root, with the Python of the image, and is sent one job over
its stdin. It writes the job's files, then runs each phase as an unprivileged user, watches it, ends it, and
reports on its stdout. It outlives the job whatever the job does:

* The job has another uid and no capability, so it can neither signal, trace nor read the supervisor. As process 1 of
  its namespace the supervisor inherits every orphan, so "no child left" means "nothing of the job left".
* Descriptors of the supervisor are close-on-exec: what the job prints goes into pipes that only the supervisor
  reads, never into the report.
* Changing the effective uid (``files.as_job``) makes the kernel mark the supervisor undumpable: /proc/1 is closed.
* Under memory pressure the kernel kills the job first (``oom_score_adj``), and the supervisor holds some memory in
  reserve that it frees to be able to report.

``porter`` is another program, for a container of another kind, and shares no more than the wire with the supervisor.

These modules are all of spoold that enters the container (the engine puts them there), where they are the package
``inside``. So they import nothing of spoold, and little of the standard library: starting the interpreter is part of
every job's price, and json, signal, typing, contextlib or subprocess would each add to it. The host imports
some of them as well, ``wire`` and ``messages`` first.
"""
