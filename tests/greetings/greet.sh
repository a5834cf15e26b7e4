read -r word
echo "hello $word"
