#Requires -RunAsAdministrator
<#
.SYNOPSIS
Makes a daily task that takes over what notebooks outside the farm have borrowed, by the vendor's books.

.DESCRIPTION
NOT TRIED ON WINDOWS: written by the documentation of the task scheduler, and checked only as far as its command exists.

One host of the farm is enough. Have the vendor's server export its books to the file before the task runs (columns
UserName, MachineId, UtcBorrowTime). A row that is known changes nothing. The task's last result is 0 if every row is in, and
1 if some were bad; they are listed when you run the command by hand:

  farmlease lease import C:\ProgramData\farmlease\BorrowedCalData.csv --pool qlikview

.EXAMPLE
.\import-task.ps1 -Pool qlikview -At 04:30
.\import-task.ps1 -Uninstall
#>
[CmdletBinding()]
param(
    [string] $Program = "$env:ProgramFiles\farmlease\Scripts\farmlease.exe",
    [string] $File = "$env:ProgramData\farmlease\BorrowedCalData.csv",
    [string] $Pool = 'qlikview',
    [string] $At = '04:30',
    [switch] $Uninstall
)
$ErrorActionPreference = 'Stop'

if ($Uninstall) {
    Unregister-ScheduledTask -TaskPath '\farmlease\' -TaskName 'import' -Confirm:$false
    return
}
if (-not (Test-Path $Program)) { throw "There is no $Program. Install farmlease, or name it with -Program." }

$arguments = "lease import `"$File`" --pool `"$Pool`""
$action = New-ScheduledTaskAction -Execute $Program -Argument $arguments
$trigger = New-ScheduledTaskTrigger -Daily -At $At
# A host that was off at that time runs it when it is back. SYSTEM reads the key ring, which is nobody else's.
$settings = New-ScheduledTaskSettingsSet -StartWhenAvailable -ExecutionTimeLimit (New-TimeSpan -Hours 1)
$principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -RunLevel Highest
Register-ScheduledTask -TaskPath '\farmlease\' -TaskName 'import' -Action $action -Trigger $trigger `
    -Settings $settings -Principal $principal -Force | Out-Null
Write-Output "The import of $File runs daily at $At."
