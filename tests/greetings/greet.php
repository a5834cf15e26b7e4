<?php echo "hello ", fgets(STDIN);
