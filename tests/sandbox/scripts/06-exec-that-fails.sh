echo before
exec nosuchprogram
echo after
