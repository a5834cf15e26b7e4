var w: string;
begin
  readln(w);
  writeln('hello ', w);
end.
