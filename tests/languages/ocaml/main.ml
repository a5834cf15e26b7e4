let rec lines () = match input_line stdin with line -> line :: lines () | exception End_of_file -> []

let () =
  print_endline (String.concat ", " (List.tl (Array.to_list Sys.argv)));
  let parse line = match Str.split (Str.regexp " ") line with [ name; score ] -> (name, int_of_string score) | _ -> assert false in
  let rows = List.sort compare (List.map parse (lines ())) in
  let out = open_out "out.txt" in
  List.iter (fun (name, score) -> Printf.fprintf out "%s %d\n" name score) rows;
  close_out out;
  let back = open_in "out.txt" in
  print_string (really_input_string back (in_channel_length back));
  let total = ref 0 in
  Thread.join (Thread.create (fun () -> total := List.fold_left (fun sum (_, score) -> sum + score) 0 rows) ());
  Printf.printf "sum %d\n" !total;
  print_endline ("2^100 = " ^ Z.to_string (Z.pow (Z.of_int 2) 100))
