merge_into "$out/include/$triplet" "$out/include"
