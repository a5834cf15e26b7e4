exec jq --raw-output 'map(select(.open)) | map(.title) | join(", ")'
