program Roll;
{$mode objfpc}{$H+}
uses
  Classes, SysUtils;
var
  Lines: TStringList;
  Line: string;
  Sum, I: Integer;
  Big: array[0..39] of Integer;
  Power, Carry, Digit: Integer;
begin
  Lines := TStringList.Create;
  while not Eof do
  begin
    ReadLn(Line);
    Lines.Add(Line);
  end;
  Lines.Sort;
  Lines.SaveToFile('out.txt');
  Lines.LoadFromFile('out.txt');
  Sum := 0;
  for I := 0 to Lines.Count - 1 do
  begin
    WriteLn(Lines[I]);
    Sum := Sum + StrToInt(Copy(Lines[I], Pos(' ', Lines[I]) + 1, 9));
  end;
  WriteLn('sum ', Sum);
  FillChar(Big, SizeOf(Big), 0);
  Big[0] := 1;
  for Power := 1 to 100 do
  begin
    Carry := 0;
    for Digit := 0 to High(Big) do
    begin
      Carry := Carry + 2 * Big[Digit];
      Big[Digit] := Carry mod 10;
      Carry := Carry div 10;
    end;
  end;
  Digit := High(Big);
  while Big[Digit] = 0 do
    Dec(Digit);
  Write('2^100 = ');
  for I := Digit downto 0 do
    Write(Big[I]);
  WriteLn;
  Lines.Free;
end.
