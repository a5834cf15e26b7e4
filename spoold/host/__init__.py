"""The only code that touches the machine: files, clocks, processes, the service manager."""
