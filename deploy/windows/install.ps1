#Requires -RunAsAdministrator
<#
.SYNOPSIS
Runs farmlease on a Windows session host by scheduled tasks, without other software.

.DESCRIPTION
NOT TRIED ON WINDOWS: written by the documentation of the task scheduler, and checked only as far as its commands exist.
Try it on one host first, and read what the tasks' history says.

Needs Python 3.11 with farmlease (C:\Program Files\farmlease\Scripts\farmlease.exe by default), and farmlease.toml and
keyring.json in C:\ProgramData\farmlease. Makes tasks in the folder \farmlease:

  agent       at start-up, as SYSTEM; started again when it ends
  logon       a session begins:         takes a seat
  connect     a session is connected:   asks for the seat again, which changes nothing unless it was lost
  disconnect  a session is left open:   the vendor's files go into the record; the program runs on and keeps its seat
  logoff      a session ends:           gives the seat back (last result 1 where there was none)
  activity    each minute:              reports who is active, for pools with idle_timeout (activity.ps1)

A task cannot refuse a logon. Where nobody may work without a licence, publish the program as
`farmlease run --app A -- program.exe`, which starts it only with a seat.

.EXAMPLE
.\install.ps1
.\install.ps1 -Uninstall
#>
[CmdletBinding()]
param(
    [string] $Program = "$env:ProgramFiles\farmlease\Scripts\farmlease.exe",
    # Where the host opens one program alone: its name for the rules of the policy, such as clearquest.
    [string] $App = '',
    [switch] $Uninstall
)
$ErrorActionPreference = 'Stop'
$data = Join-Path $env:ProgramData 'farmlease'
$names = 'agent', 'logon', 'connect', 'disconnect', 'logoff', 'activity'

if ($Uninstall) {
    foreach ($name in $names) {
        Unregister-ScheduledTask -TaskPath '\farmlease\' -TaskName $name -Confirm:$false -ErrorAction SilentlyContinue
    }
    return
}
if (-not (Test-Path $Program)) { throw "There is no $Program. Install farmlease, or name it with -Program." }

# File modes protect nothing on Windows: the folder is SYSTEM's and the administrators' (by SID: names are translated).
New-Item -ItemType Directory -Force $data | Out-Null
icacls $data /inheritance:r /grant '*S-1-5-18:(OI)(CI)F' '*S-1-5-32-544:(OI)(CI)F' | Out-Null

function Register-Task([string] $Name, [string] $Trigger, [string] $Arguments, [string] $Limit, [string] $Restart = '', [string] $Command = $Program) {
    $xml = @"
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <Triggers>$Trigger</Triggers>
  <Principals><Principal id="system"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal></Principals>
  <Settings>
    <MultipleInstancesPolicy>Parallel</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>$Limit</ExecutionTimeLimit>
    $Restart
  </Settings>
  <Actions Context="system">
    <Exec><Command>"$Command"</Command><Arguments>$Arguments</Arguments></Exec>
  </Actions>
</Task>
"@
    Register-ScheduledTask -TaskPath '\farmlease\' -TaskName $Name -Xml $xml -Force | Out-Null
}

# Windows itself notes each session's life with its id and its user (DOMAIN\name), which go into the command.
function Session-Event([int] $Id) {
    $log = 'Microsoft-Windows-TerminalServices-LocalSessionManager/Operational'
    "<EventTrigger>
      <Subscription>&lt;QueryList&gt;&lt;Query Id=`"0`"&gt;&lt;Select Path=`"$log`"&gt;*[System[EventID=$Id]]&lt;/Select&gt;&lt;/Query&gt;&lt;/QueryList&gt;</Subscription>
      <ValueQueries>
        <Value name=`"SessionID`">Event/UserData/EventXML/SessionID</Value>
        <Value name=`"User`">Event/UserData/EventXML/User</Value>
      </ValueQueries>
    </EventTrigger>"
}

# The same id at both ends: Windows gives a session's id to another one only when the session is over.
$start = 'session start --session "$(SessionID)" -- "$(User)"'
if ($App) { $start = $start -replace '^session start', "session start --app `"$App`"" }
$again = '<RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>'
Register-Task 'agent' '<BootTrigger/>' 'agent' 'PT0S' $again
Register-Task 'logon' (Session-Event 21) $start 'PT1M'
Register-Task 'connect' (Session-Event 25) $start 'PT1M'
Register-Task 'disconnect' (Session-Event 24) 'session save "$(SessionID)"' 'PT1M'
Register-Task 'logoff' (Session-Event 23) 'session end "$(SessionID)"' 'PT1M'

# Each minute from now on. The script lies where only SYSTEM and administrators may write.
$script = Join-Path $data 'activity.ps1'
Copy-Item (Join-Path $PSScriptRoot 'activity.ps1') $script -Force
$minutely = '<TimeTrigger><StartBoundary>2026-01-01T00:00:00</StartBoundary><Repetition><Interval>PT1M</Interval></Repetition></TimeTrigger>'
$report = "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$script`" -Program `"$Program`""
Register-Task 'activity' $minutely $report 'PT1M' -Command "$PSHOME\powershell.exe"

Start-ScheduledTask -TaskPath '\farmlease\' -TaskName 'agent'
Write-Output "The agent is starting. '$Program' health tells when it is ready."
