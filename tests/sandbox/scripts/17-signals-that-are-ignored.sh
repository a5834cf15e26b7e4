grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status
trap -p
yes | head -n 1; echo "${PIPESTATUS[@]}"
python3 -c 'import signal; print(*(s.name for s in signal.valid_signals() if isinstance(s, signal.Signals) and signal.getsignal(s) == signal.SIG_IGN))'
