echo out; echo err >&2
cat nosuchfile
cd nosuchdirectory
echo x > /proc/version
ls --nosuchoption 2>&1 >/dev/null | head -n 1
exit 1
