mcs -r:System.Numerics.dll main.cs
