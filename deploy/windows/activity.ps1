<#
.SYNOPSIS
Reports to farmlease which sessions of this host are active. The task `activity` of install.ps1 runs it each minute.

.DESCRIPTION
NOT TRIED ON WINDOWS: written by the documentation of the Remote Desktop Services API.

Windows notes the last input of each remote session (WTSINFO.LastInputTime, as `quser` shows it). A session with input
since the last run is touched:

  farmlease session touch 3

A session that has no seat answers with an error, which is of no interest here. Of the console's session Windows notes no
input; it is never touched.
#>
param(
    [string] $Program = "$env:ProgramFiles\farmlease\Scripts\farmlease.exe",
    [int] $Seconds = 90
)
$ErrorActionPreference = 'Stop'

Add-Type -TypeDefinition @"
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

public static class LastInput {
    [StructLayout(LayoutKind.Sequential)]
    struct Session { public int Id; public IntPtr Station; public int State; }

    [StructLayout(LayoutKind.Sequential, CharSet = CharSet.Unicode)]
    struct Info {
        public int State; public int Id;
        public int InBytes, OutBytes, InFrames, OutFrames, InCompressed, OutCompressed;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 32)] public string Station;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 17)] public string Domain;
        [MarshalAs(UnmanagedType.ByValTStr, SizeConst = 21)] public string User;
        public long Connected, Disconnected, LastInput, LoggedOn, Now;
    }

    [DllImport("wtsapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
    static extern bool WTSEnumerateSessionsW(IntPtr server, int reserved, int version, out IntPtr sessions, out int count);
    [DllImport("wtsapi32.dll", CharSet = CharSet.Unicode, SetLastError = true)]
    static extern bool WTSQuerySessionInformationW(IntPtr server, int id, int kind, out IntPtr info, out int bytes);
    [DllImport("wtsapi32.dll")]
    static extern void WTSFreeMemory(IntPtr memory);

    const int SessionInfo = 24;

    // Seconds since the last input, by session.
    public static Dictionary<int, double> All() {
        var found = new Dictionary<int, double>();
        IntPtr sessions; int count;
        if (!WTSEnumerateSessionsW(IntPtr.Zero, 0, 1, out sessions, out count)) return found;
        for (int number = 0; number < count; number++) {
            var session = Marshal.PtrToStructure<Session>(sessions + number * Marshal.SizeOf<Session>());
            IntPtr info; int bytes;
            if (!WTSQuerySessionInformationW(IntPtr.Zero, session.Id, SessionInfo, out info, out bytes)) continue;
            var told = Marshal.PtrToStructure<Info>(info);
            if (told.LastInput > 0) found[session.Id] = (told.Now - told.LastInput) / 1e7;
            WTSFreeMemory(info);
        }
        WTSFreeMemory(sessions);
        return found;
    }
}
"@

foreach ($session in [LastInput]::All().GetEnumerator()) {
    if ($session.Value -lt $Seconds) { & $Program session touch $session.Key *> $null }
}
