"""Count the words on standard input, and show the commonest; the environment says how many."""

import collections
import os
import sys

words = collections.Counter(word.strip(".,").lower() for word in sys.stdin.read().split())
print(f"{sys.argv[1]} by {sys.argv[2]}: {words.total()} words, {len(words)} of them different")
for word, count in words.most_common(int(os.environ["MOST"])):
    print(f"{count:3} {word}")
